"""The office: it registers, grants, withdraws and erases."""
