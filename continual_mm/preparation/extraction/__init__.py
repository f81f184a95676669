"""From raw media to records: decoding, feature towers, and the job that does many clips."""
