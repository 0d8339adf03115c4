// Table of the variables that every command reads; flags beat them. docs/configuration.md is made
// from it.

export const commandVariables: Record<string, { meaning: string }> = {
  ASTRAML_URL: {
    meaning:
      'Address of the gateway (`--server`); else that of the nearest `.astraml/client.json`, which `astraml dev` writes, else `http://127.0.0.1:4000`.',
  },
  ASTRAML_TOKEN: { meaning: 'Token; else the one of `.astraml/client.json`, for the server that it names only.' },
  ASTRAML_PROJECT: { meaning: 'Project (`-p`); else the one of `.astraml/client.json`.' },
  ASTRAML_DATA_DIR: { meaning: 'Folder with the `client.json` to use, in place of the nearest `.astraml`.' },
  NO_COLOR: { meaning: 'Set: output without colours (`--no-color`).' },
  FORCE_COLOR: { meaning: 'Set: output with colours also where no terminal reads; `0` or `false`: without.' },
  TERM: { meaning: '`dumb`: output without colours.' },
};
