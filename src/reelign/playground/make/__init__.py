"""How the packaged tiny generator is made: its latents, its parts, its training, its folder."""
