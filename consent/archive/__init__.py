"""What is kept: the SQL tables, the office's keys, and voices sealed with keys of their own."""
