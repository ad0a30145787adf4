"""Trunks: carriers and telephone exchanges by which calls leave, the edge as their user agent client."""
