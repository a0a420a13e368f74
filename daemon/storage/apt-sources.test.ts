import assert from "node:assert/strict";
import { test } from "node:test";
import { distributionSources, formatSource, withoutCredentials } from "./apt-sources.ts";

const lines = (name: string, text: string, codename = "bookworm") =>
  distributionSources([{ name, text }], codename).map(formatSource);

test("deb822 files give one source for each address and suite of the release, with its key ring", () => {
  const text = `# made by hand
Types: deb deb-src
URIs: https://mirror.example/debian
# another comment
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example/security
Suites: bookworm-security
Components: main
`;
  assert.deepEqual(lines("debian.sources", text), [
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/debian bookworm main contrib",
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/debian bookworm-updates main contrib",
    "deb https://mirror.example/security bookworm-security main",
  ]);
});

test("one-line files are read with their options and comments", () => {
  const text = `
# deb https://old.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/a.gpg] http://mirror.example/debian bookworm main contrib # ours
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian bookworm/updates main`;
  assert.deepEqual(lines("sources.list", text), [
    "deb [signed-by=/etc/apt/keyrings/a.gpg] http://mirror.example/debian bookworm main contrib",
    "deb http://mirror.example/debian bookworm/updates main",
  ]);
});

test("other publishers, other releases, disabled stanzas and sources on the host itself are left out", () => {
  const rows: [string, string][] = [
    ["sources.list", "deb https://other.example/apt other-bookworm main"],
    ["sources.list", "deb https://docker.example/linux bookworm stable"],
    ["sources.list", "deb https://mirror.example/debian trixie main"],
    ["sources.list", "deb file:/srv/mirror bookworm main"],
    ["sources.list", "deb cdrom:[disc] bookworm main"],
    ["x.sources", "Enabled: no\nTypes: deb\nURIs: https://mirror.example/debian\nSuites: bookworm\nComponents: main\n"],
    ["x.sources", "Types: deb-src\nURIs: https://mirror.example/debian\nSuites: bookworm\nComponents: main\n"],
  ];
  for (const [name, text] of rows) assert.deepEqual(lines(name, text), [], text);
});

test("a source that is named twice is taken once", () => {
  const line = "deb https://mirror.example/debian bookworm main\n";
  assert.equal(lines("sources.list", line + line).length, 1);
});

test("user names and passwords never leave the machine's own files", () => {
  assert.deepEqual(lines("sources.list", "deb https://me:secret@mirror.example/debian bookworm main"), [
    "deb https://mirror.example/debian bookworm main",
  ]);
  assert.equal(withoutCredentials("https://token@index.example/a@b"), "https://index.example/a@b");
  assert.equal(withoutCredentials("https://index.example/a@b"), "https://index.example/a@b");
});
