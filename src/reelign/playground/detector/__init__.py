"""What rewards see by: palette, moments, and smooth scores of what they show. Nothing here renders."""
