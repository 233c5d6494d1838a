"""Which stores a configuration asks for: Cassandra, those of the embedded cluster, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.stores.memory import MemoryStores, MemoryStoreState

if TYPE_CHECKING:
    from prosody.broker.memory import MemoryCluster
    from prosody.config import Config
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Stores


def make_stores(config: Config, runtime: Runtime, cluster: MemoryCluster | None) -> Stores | None:
    """The stores of ``config``; no I/O.

    :param cluster: the embedded cluster, whose stores are taken; None when the broker is a real one.
    :returns: None when nothing is configured that could keep anything (no ``cassandra_nodes``).
    """
    if cluster is not None:
        return MemoryStores(
            cluster.attached(MemoryStoreState),
            runtime=runtime,
            dedup_ttl_s=config.consumer.idempotence_ttl,
        )
    if not config.cassandra.cassandra_nodes:
        return None
    # Imported here: the driver takes a while, and a client without Cassandra does not need it.
    from prosody.stores.cassandra import CassandraSettings, CassandraStores

    options, extra = config.cassandra, config.extra
    settings = CassandraSettings(
        nodes=options.cassandra_nodes,
        keyspace=options.cassandra_keyspace,
        user=options.cassandra_user,
        password=options.cassandra_password,
        datacenter=options.cassandra_datacenter,
        rack=options.cassandra_rack,
        retention_s=options.cassandra_retention,
        dedup_ttl_s=config.consumer.idempotence_ttl,
        slab_size_s=config.consumer.slab_size,
        ssl_enabled=extra.cassandra_ssl_enabled,
        ssl_cafile=extra.cassandra_ssl_cafile,
        ssl_certfile=extra.cassandra_ssl_certfile,
        ssl_keyfile=extra.cassandra_ssl_keyfile,
        ssl_check_hostname=extra.cassandra_ssl_check_hostname,
        schema_check_only=extra.cassandra_schema_check_only,
    )
    return CassandraStores(settings, runtime)
