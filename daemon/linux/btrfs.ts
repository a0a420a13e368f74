import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { systemCall } from "./libc.ts";

/** Makes an empty subvolume. */
export async function createSubvolume(path: string): Promise<void> {
  const name = Buffer.from(basename(path));
  if (name.length > 255) throw new TypeError(`Cannot make the subvolume "${path}": its name is too long`);
  const args = Buffer.alloc(volArgsBytes);
  name.copy(args, volArgsName);
  await control(dirname(path), createRequest, args, `make the subvolume "${path}"`);
}

/** Bounds what a subvolume may refer to, whoever writes it. Quota must be on. */
export async function limitSubvolume(path: string, bytes: number): Promise<void> {
  const args = Buffer.alloc(limitArgsBytes); // group 0: the one of the subvolume itself
  args.writeBigUInt64LE(limitReferenced, 8);
  args.writeBigUInt64LE(BigInt(bytes), 16);
  await control(path, limitRequest, args, `limit the subvolume "${path}"`);
}

async function control(dir: string, request: number, args: Buffer, what: string): Promise<void> {
  const handle = await open(dir, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await ioctl(what, handle.fd, request, args);
  } finally {
    await handle.close();
  }
}

const ioctl = systemCall<[fd: number, request: number, args: Buffer]>(
  "int ioctl(int fd, unsigned long request, uint8_t *args)",
);

/** From linux/btrfs.h, the same on x86-64 and arm64. */
const createRequest = 0x5000_940e;
const limitRequest = 0x8030_942b;
/** struct btrfs_ioctl_vol_args: a descriptor that is not used here, then the name. */
const volArgsBytes = 4096;
const volArgsName = 8;
/** struct btrfs_ioctl_qgroup_limit_args: group, flags, most referenced, most exclusive, two reservations. */
const limitArgsBytes = 48;
const limitReferenced = 1n;
