import assert from "node:assert/strict";
import { test } from "node:test";
import { configOf, hasCallbacks, requireSupported } from "./config.ts";
import { Sandbox } from "./sandbox.ts";
import { connect } from "./connection.ts";

const place = { connection: connect({ url: "http://127.0.0.1:9" }), id: "box", options: {} };

test("a plain sandbox has nothing to say", () => {
  assert.equal(configOf("box", new Sandbox(place), {}), undefined);
});

test("fields of a class are told, options of the call come before them", () => {
  class AgentBox extends Sandbox {
    sleepAfter = "5m";
    persistAcrossSessions = { type: "disk" };
    envVars = { CI: "1", GONE: undefined };
    enableInternet = true;
  }
  assert.deepEqual(configOf("box", new AgentBox(place), { sleepAfter: 30, labels: { team: "data" } }), {
    sleepAfter: 30,
    persistAcrossSessions: { type: "disk" },
    envVars: { CI: "1", GONE: null },
    labels: { team: "data" },
  });
});

test("options that are the client's alone are not told", () => {
  assert.equal(configOf("box", {}, { enableDefaultSession: false, normalizeId: true }), undefined);
});

for (const [what, options, words] of [
  ["a duration without a unit", { sleepAfter: "soon" }, /sleepAfter: a duration is/],
  ["a type of persistence that is none", { persistAcrossSessions: { type: "tape" } }, /persistAcrossSessions/],
  ["an instance type that is none", { instance: "huge" }, /instance/],
  ["a variable that cannot be one", { envVars: { "A=B": "1" } }, /envVars/],
  ["a number of memory", { instance: { vcpu: 1, memoryMiB: -5, diskMB: 100 } }, /instance/],
  ["an option that is none", { sleepafter: "5m" }, /there is no option "sleepafter"/],
] as const) {
  test(`${what} is refused before anything is sent`, () => {
    assert.throws(() => configOf("box", {}, options as never), { code: "VALIDATION_FAILED", message: words });
  });
}

test("what this version cannot keep is refused, never passed over", () => {
  const refused = [
    class extends Sandbox {
      enableInternet = false;
    },
    class extends Sandbox {
      interceptHttps = true;
    },
    class extends Sandbox {
      allowedHosts = ["example.com"];
    },
    class extends Sandbox {
      deniedHosts = ["example.com"];
    },
    class extends Sandbox {
      onStart() {}
    },
    class extends Sandbox {
      onStop = () => {};
    },
    class extends Sandbox {
      static outbound = () => new Response("no");
    },
    class extends Sandbox {
      static outboundByHost = { "a.example": () => new Response("no") };
    },
  ];
  for (const type of refused) {
    assert.throws(() => requireSupported("box", new type(place), false), { code: "NOT_SUPPORTED" }, String(type));
  }
  class Allowed extends Sandbox {
    enableInternet = true;
    interceptHttps = false;
  }
  requireSupported("box", new Allowed(place), false);
  requireSupported("box", new Sandbox(place), false);
});

test("callbacks are refused where nobody calls them, with the remedy", () => {
  class Told extends Sandbox {
    onActivityExpired() {}
  }
  const box = new Told(place);
  assert.throws(() => requireSupported("box", box, false), {
    code: "NOT_SUPPORTED",
    details: { field: "onActivityExpired" },
    suggestion: /"atoll run"/,
  });
  requireSupported("box", box, true);
  assert.deepEqual([hasCallbacks(box), hasCallbacks(new Sandbox(place))], [true, false]);
});

test("the name of a class is told, and is no option and no field", () => {
  class Named extends Sandbox {
    className = "not told";
  }
  assert.equal(configOf("box", new Named(place), {}), undefined);
  assert.deepEqual(configOf("box", new Named(place), {}, "Named"), { className: "Named" });
  assert.throws(() => configOf("box", {}, { className: "Other" } as never), { code: "VALIDATION_FAILED" });
});
