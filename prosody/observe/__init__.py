"""What the library tells the outside about itself."""
