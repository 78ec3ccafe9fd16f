"""One installation for all attacks of a file, on the cluster that all share."""

from tests.cluster.conftest import system as system
