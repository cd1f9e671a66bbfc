from pathlib import Path


def test_an_abf(service, client, real_data: Path):
    batch = service.batch(client, species="mouse")
    file = real_data / "recordings" / "171116sh_0018.abf"
    assert service.give(client, batch, file.name, file.read_bytes()).status_code == 201
    state = service.finished(client, batch)
    assert state["files"][0]["state"] == "done"
    found = client.get(f"/batches/{batch}/cells/1/0").json()
    assert found["details"]["cell"]["subclass"]
    assert "x" in found["details"]["map"]
