"""Each finding of the doctor, against what it is about."""
