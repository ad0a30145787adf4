"""What is asked and told over HTTP."""
