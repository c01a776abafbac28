"""The shelf of anonymisers: one small file a type. Nobody imports a shelf; a recipe names it."""
