import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { systemCall } from "./libc.ts";

/** Makes an empty subvolume. */
export async function createSubvolume(path: string): Promise<void> {
  await control(dirname(path), createRequest, nameArgs(path), `make the subvolume "${path}"`);
}

/** Its name goes at once, its content in the background. Throws with code ENOENT when there is none. */
export async function deleteSubvolume(path: string): Promise<void> {
  await control(dirname(path), destroyRequest, nameArgs(path), `delete the subvolume "${path}"`);
}

/** Bounds what a subvolume may refer to, whoever writes it. Quota must be on. */
export async function limitSubvolume(path: string, bytes: number): Promise<void> {
  const args = Buffer.alloc(limitArgsBytes); // group 0: the one of the subvolume itself
  args.writeBigUInt64LE(limitReferenced, 8);
  args.writeBigUInt64LE(BigInt(bytes), 16);
  await control(path, limitRequest, args, `limit the subvolume "${path}"`);
}

function nameArgs(path: string): Buffer {
  const name = Buffer.from(basename(path));
  if (name.length > 255) throw new TypeError(`Cannot use the subvolume "${path}": its name is too long`);
  const args = Buffer.alloc(volArgsBytes);
  name.copy(args, volArgsName);
  return args;
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
const destroyRequest = 0x5000_940f;
const limitRequest = 0x8030_942b;
/** struct btrfs_ioctl_vol_args: a descriptor that is not used here, then the name. */
const volArgsBytes = 4096;
const volArgsName = 8;
/** struct btrfs_ioctl_qgroup_limit_args: group, flags, most referenced, most exclusive, two reservations. */
const limitArgsBytes = 48;
const limitReferenced = 1n;
