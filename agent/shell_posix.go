package main

var posixDialect = dialect{name: "sh", wrapper: "", restore: restoreBash, parse: parseBash, close: bashDialect.close}
