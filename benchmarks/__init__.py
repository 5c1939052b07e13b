"""Speed as ratios against the named peer, measured alternately in one run on one machine."""
