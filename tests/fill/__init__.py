"""The fill: one download for all, the exact bytes or a visible cut, whatever fails."""
