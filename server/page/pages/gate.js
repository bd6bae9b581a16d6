// Before one is in: the login, and the first user of a new server.

import { html, useEffect, useState } from "../html.js";
import { post } from "../api.js";
import { Field, Form, NewPassword, Note } from "../ui.js";

export function Login({ entered }) {
  useEffect(() => {
    document.title = "Log in – rust-ota";
  }, []);
  return html`<main class="gate"><h1>rust-ota</h1><${LoginForm} entered=${entered} /></main>`;
}

/** Where one goes on: the field that has come. */
const goOn = (input) => input?.focus();

/** `email` is who was in before, if somebody was. */
export function LoginForm({ email: before = "", entered }) {
  const [email, setEmail] = useState(before);
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [second, setSecond] = useState(false);
  const send = async () => {
    try {
      await post("v1/useradm/auth/session", { email, password, ...(second ? { token2fa: code } : {}) });
    } catch (error) {
      if (error.body?.second_factor && !second) return setSecond(true);
      if (error.status === 401) throw new Error(second ? "The code, the address or the password is wrong." : "The address or the password is wrong.");
      throw error;
    }
    entered();
  };
  return html`
    <${Form} name="Log in" send=${send}>
      <${Field} label="E-mail" type="email" autocomplete="username" required value=${email} onInput=${(event) => setEmail(event.target.value)} />
      <${Field} label="Password" type="password" autocomplete="current-password" required value=${password} onInput=${(event) => setPassword(event.target.value)} />
      ${second &&
      html`<${Field} ref=${goOn} label="Code of your second factor" inputmode="numeric" autocomplete="one-time-code" required value=${code} onInput=${(event) => setCode(event.target.value)} />`}
    <//>
  `;
}

export function Start({ token, entered }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [typed, setTyped] = useState("");
  useEffect(() => {
    document.title = "First start – rust-ota";
  }, []);
  return html`
    <main class="gate">
      <h1>Welcome</h1>
      <p>This server has no user yet. The first one may do everything, and can let others in.</p>
      ${!token && html`<${Note} kind="wait">The server has printed a link for this on its terminal, or in its log. Open it, or copy the word at its end.<//>`}
      <${Form} name="Begin" send=${async () => {
        await post("v1/useradm/auth/first-user", { token: token ?? typed.trim(), email, password });
        entered();
      }}>
        ${!token && html`<${Field} label="Word from the link" required autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} />`}
        <${Field} label="E-mail" type="email" autocomplete="username" required value=${email} onInput=${(event) => setEmail(event.target.value)} />
        <${NewPassword} label="Password" required value=${password} onInput=${(event) => setPassword(event.target.value)} />
      <//>
    </main>
  `;
}
