"""speechssl: learn speech representations without labels."""
