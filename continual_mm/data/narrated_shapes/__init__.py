"""A generated dataset of short clips: a shape moves, an instrument plays, a sentence tells both."""
