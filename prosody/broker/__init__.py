"""The broker seam: what the library needs of Kafka, and the brokers that give it."""
