"""The sound of calls: sockets, RTP both ways, RTCP, and what is heard of a packet that is lost."""
