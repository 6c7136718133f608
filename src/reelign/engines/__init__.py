"""What online methods are made of: slots, how they are filled, and the two losses that read them."""
