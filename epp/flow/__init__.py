"""Flow control: who may go now, who waits, and what becomes of the rest. Pure: time and timers are handed in."""
