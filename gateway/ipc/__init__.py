"""How the processes of one gateway meet: messages, RPC, ticks."""
