"""The calls of a hall and their 20 ms."""
