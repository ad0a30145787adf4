"""What is wrong with a machine, and what helps."""
