"""Commands about services: declaring, changing, following and asking them."""
