"""The hall: the process that has the calls themselves."""
