"""What stands between an admitted event and the handler: small layers, one job each."""
