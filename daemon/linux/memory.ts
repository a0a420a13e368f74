import { libc } from "./libc.ts";

/**
 * One heap for all threads of this process. Each thread would have an arena of its own, which keeps what was once freed in it
 * for the next time: 30 to 60 MB in a daemon that has copied files. Called first of all, before threads take theirs.
 */
export function shareHeap(): void {
  mallopt(M_ARENA_MAX, 1);
}

/** Gives memory that is free within this process back to the host: at most some milliseconds, 0.2 when there is none. */
export function giveMemoryBack(): void {
  trim(0);
}

const mallopt = libc.func("int mallopt(int option, int value)") as (option: number, value: number) => number;
const trim = libc.func("int malloc_trim(size_t keepBytes)") as (keepBytes: number) => number;
const M_ARENA_MAX = -8;
