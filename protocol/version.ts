/** Version of the public wire. It changes when a client of the former one could misunderstand a daemon of the new one. */
export const wireVersion = 2;

/** The header in which a client may say the version that it speaks. */
export const wireHeader = "atoll-wire";
