//! Broadcast: the members are the reactor's own, and share the bytes.

use bytes::Bytes;
use reev::{Close, ConnId, Ctx, EvHandler};
use std::{io, mem};

pub struct Member;

#[derive(Default)]
struct Members(Vec<ConnId>);

impl EvHandler for Member {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let id = cx.id();
        cx.local::<Members>().0.push(id);
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let message = Bytes::copy_from_slice(data);
        let members = mem::take(cx.local::<Members>());
        for &id in &members.0 {
            if let Some(mut member) = cx.conn(id) {
                member.write_owned(message.clone());
            }
        }
        *cx.local() = members;
        Ok(data.len())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        let id = cx.id();
        cx.local::<Members>().0.retain(|&member| member != id);
    }
}
