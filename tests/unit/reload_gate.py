"""What a plug-in file under test waits at; a module, so that the file can import it."""

from tests.unit.reload_kit import Gate

gate = Gate()
