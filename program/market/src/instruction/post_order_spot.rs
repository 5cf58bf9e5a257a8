//! Posts an order with further terms, spot among them.

use crate::shared::{Cx, Outcome};
use atoll_interface::instruction::{PostOrder, PostOrderSpot};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let further = PostOrderSpot::decode(cx.fields)?;
    super::post_order::post(cx, &PostOrder::decode(further.order)?, &further)
}
