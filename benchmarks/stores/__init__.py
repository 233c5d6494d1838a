"""The stores: operations per second on memory and on a real Cassandra."""
