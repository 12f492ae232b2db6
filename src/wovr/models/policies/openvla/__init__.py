"""OpenVLA-OFT, the paper's policy: eyes, words, action tokens, released weights."""
