"""What a call is made of: its line, its inbox, its licence, its playout, its clocks."""
