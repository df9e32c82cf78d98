"""What a run hands back when no source was any good."""

from mirrors.job import together

DNS = "The name of {} is not known to DNS (HEAD manifest). Check the name and this machine's DNS servers."


def test_the_same_fault_at_several_sources_is_told_once() -> None:
    hosts = ("mirror.gcr.io", "ghcr.io", "docker.io")
    assert together([(host, DNS.format(host)) for host in hosts]) == [
        DNS.format("mirror.gcr.io") + " The same for ghcr.io and docker.io."
    ]


def test_different_faults_are_all_told_in_their_order() -> None:
    refused = "ghcr.io refused the connection. Check host and port."
    failures = [("a.example", DNS.format("a.example")), ("ghcr.io", refused), ("b.example", DNS.format("b.example"))]
    assert together(failures) == [DNS.format("a.example") + " The same for b.example.", refused]
    assert together([]) == []


def test_two_sources_of_one_host_are_told_once() -> None:
    refused = "ghcr.io refused the connection."
    assert together([("ghcr.io", refused), ("ghcr.io", refused)]) == [refused]
