"""The cache of images as its keeper sees it: what is there, who uses it, whether it is whole, and what may go."""
