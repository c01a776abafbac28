"""The shelf of readers: one small file a format. Nobody imports a shelf; a recipe names it in `format`."""
