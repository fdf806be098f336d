"""The load generator behind `headworks load`: cameras in real time, measured without coordinated omission."""
