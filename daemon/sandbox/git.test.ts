import assert from "node:assert/strict";
import { test } from "node:test";
import { failureOf } from "./git.ts";

/** What ends every failure over ssh. */
const noAccess = `fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
`;
const cloning = "Cloning into '/workspace/project'...\n";

const rows: [string, string, string][] = [
  ["GitHub, ssh", `ERROR: Repository not found.\r\n${noAccess}`, "GIT_REPOSITORY_NOT_FOUND"],
  [
    "GitHub, https",
    "remote: Repository not found.\nfatal: repository 'https://github.test/a/b.git/' not found\n",
    "GIT_REPOSITORY_NOT_FOUND",
  ],
  ["git daemon", "fatal: remote error: Repository not found\n", "GIT_REPOSITORY_NOT_FOUND"],
  [
    "GitLab, ssh",
    `remote: \nremote: ${"=".repeat(72)}\nremote: \nremote: ERROR: The project you were looking for could not be found or you don't have permission to view it.\nremote: \n${noAccess}`,
    "GIT_REPOSITORY_NOT_FOUND",
  ],
  [
    "GitLab, https",
    "remote: The project you were looking for could not be found or you don't have permission to view it.\nfatal: repository 'https://gitlab.test/a/b.git/' not found\n",
    "GIT_REPOSITORY_NOT_FOUND",
  ],
  ["a path", "fatal: repository '/srv/it's gone.git' does not exist\n", "GIT_REPOSITORY_NOT_FOUND"],
  [
    "a host's path",
    `fatal: '/srv/none.git' does not appear to be a git repository\n${noAccess}`,
    "GIT_REPOSITORY_NOT_FOUND",
  ],
  [
    "http, 404",
    "fatal: unable to access 'http://a.test/': The requested URL returned error: 404\n",
    "GIT_REPOSITORY_NOT_FOUND",
  ],

  ["ssh, key", `git@host.test: Permission denied (publickey).\r\n${noAccess}`, "GIT_AUTH_FAILED"],
  ["ssh, password", `git@host.test: Permission denied (password).\r\n${noAccess}`, "GIT_AUTH_FAILED"],
  ["ssh, both", `git@host.test: Permission denied (publickey,password).\r\n${noAccess}`, "GIT_AUTH_FAILED"],
  [
    "ssh, others",
    `Warning: Permanently added 'host.test' (ED25519) to the list of known hosts.\r\ngit@10.0.0.1: Permission denied (gssapi-keyex,gssapi-with-mic,keyboard-interactive).\r\n${noAccess}`,
    "GIT_AUTH_FAILED",
  ],
  ["ssh, an older one", `Permission denied (publickey,hostbased).\r\n${noAccess}`, "GIT_AUTH_FAILED"],
  [
    "http, no login",
    "fatal: could not read Username for 'https://a.test': terminal prompts disabled\n",
    "GIT_AUTH_FAILED",
  ],
  [
    "http, a wrong login",
    "remote: Not here.\nfatal: Authentication failed for 'https://a.test/b.git/'\n",
    "GIT_AUTH_FAILED",
  ],
  ["http, 403", "fatal: unable to access 'http://a.test/': The requested URL returned error: 403\n", "GIT_AUTH_FAILED"],

  ["a branch", "fatal: Remote branch none not found in upstream origin\n", "GIT_BRANCH_NOT_FOUND"],
  [
    "a branch with a telling name",
    "warning: Could not find remote branch Repository-not-found to clone.\nfatal: Remote branch Repository-not-found not found in upstream origin\n",
    "GIT_BRANCH_NOT_FOUND",
  ],
  [
    "a full directory with a telling name",
    "fatal: destination path 'repository is not found' already exists and is not an empty directory.\n",
    "FILE_EXISTS",
  ],
  [
    "a directory whose name is a sentence",
    "Cloning into '/srv/does not exist: Permission denied (password).'...\nfatal: unable to access 'http://a.test/': Could not resolve host: a.test\n",
    "GIT_NETWORK_ERROR",
  ],
  [
    "an address with a telling name",
    "fatal: unable to access 'https://a.test/Repository not found./': Failed to connect to a.test port 443 after 2 ms: Couldn't connect to server\n",
    "GIT_NETWORK_ERROR",
  ],
  [
    "a file that may not be written",
    "error: unable to create file Repository not found.: Permission denied\nfatal: unable to checkout working tree\n",
    "GIT_CLONE_FAILED",
  ],
  [
    "a directory that may not be made",
    "fatal: could not create work tree dir '/proc/x': Permission denied\n",
    "GIT_CLONE_FAILED",
  ],
  ["a full disk", "error: unable to write file a: No space left on device\n", "NO_SPACE"],
  ["words of nobody", "", "GIT_CLONE_FAILED"],
];

for (const [what, words, code] of rows) {
  test(`what a failed clone said is told by its code: ${what}: ${code}`, () => {
    assert.equal(failureOf(cloning + words), code);
  });
}
