"""Telephones' sound: RTP, RTCP and their codecs, for all calls of a process at once."""
