"""What a day's data is worth, measured from its raw lines. Pure: no clock, no loop, no driver."""
