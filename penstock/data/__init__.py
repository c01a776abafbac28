"""The larder: sources prepared into immutable versions, encoded once, and handed out in order."""
