"""Published files, and records of whatever origin, made into packs and stores."""
