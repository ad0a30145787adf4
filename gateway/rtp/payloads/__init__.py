"""What RTP packets carry: codecs, comfort noise, keys."""
