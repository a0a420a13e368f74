/** What a program can import of @atoll/sandbox, and the module of this folder that it is: of the package and in a checkout. */
export const entries = { ".": "index", "./xterm": "xterm" } as const;
