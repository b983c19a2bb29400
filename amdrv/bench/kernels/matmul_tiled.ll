; c = a * b for square row-major matrices of n x n floats, n a multiple of 16: workgroups of 16 x 16 fetch a tile of each
; operand into LDS, a work-item one element of each, and multiply them from there, a work-item one element of the result.
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare void @llvm.amdgcn.s.barrier()
declare float @llvm.fma.f32(float, float, float)

@a.tile = internal addrspace(3) global [256 x float] poison, align 16
@b.tile = internal addrspace(3) global [256 x float] poison, align 16

define amdgpu_kernel void @matmul_tiled(ptr addrspace(1) noalias %c, ptr addrspace(1) noalias readonly %a,
                                        ptr addrspace(1) noalias readonly %b, i32 %n) #0 {
entry:
  %x = call i32 @llvm.amdgcn.workitem.id.x()
  %y = call i32 @llvm.amdgcn.workitem.id.y()
  %group.x = call i32 @llvm.amdgcn.workgroup.id.x()
  %group.y = call i32 @llvm.amdgcn.workgroup.id.y()
  %first.column = shl i32 %group.x, 4
  %first.row = shl i32 %group.y, 4
  %column = or disjoint i32 %first.column, %x
  %row = or disjoint i32 %first.row, %y
  %a.row = mul i32 %row, %n
  %line = shl i32 %y, 4
  %slot = or disjoint i32 %line, %x
  %a.slot = getelementptr float, ptr addrspace(3) @a.tile, i32 %slot
  %b.slot = getelementptr float, ptr addrspace(3) @b.tile, i32 %slot
  br label %tiles

tiles:
  %k = phi i32 [ 0, %entry ], [ %k.next, %multiplied ]
  %sum = phi float [ 0.0, %entry ], [ %partial.next, %multiplied ]
  %a.column = add i32 %k, %x
  %b.line = add i32 %k, %y
  %b.row = mul i32 %b.line, %n
  %a.index = add i32 %a.row, %a.column
  %b.index = add i32 %b.row, %column
  %a.at = getelementptr float, ptr addrspace(1) %a, i32 %a.index
  %b.at = getelementptr float, ptr addrspace(1) %b, i32 %b.index
  %a.value = load float, ptr addrspace(1) %a.at
  %b.value = load float, ptr addrspace(1) %b.at
  store float %a.value, ptr addrspace(3) %a.slot
  store float %b.value, ptr addrspace(3) %b.slot
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  br label %multiply

multiply:
  %step = phi i32 [ 0, %tiles ], [ %step.next, %multiply ]
  %partial = phi float [ %sum, %tiles ], [ %partial.next, %multiply ]
  %a.place = or disjoint i32 %line, %step
  %b.start = shl i32 %step, 4
  %b.place = or disjoint i32 %b.start, %x
  %a.load = getelementptr float, ptr addrspace(3) @a.tile, i32 %a.place
  %b.load = getelementptr float, ptr addrspace(3) @b.tile, i32 %b.place
  %one.a = load float, ptr addrspace(3) %a.load
  %one.b = load float, ptr addrspace(3) %b.load
  %partial.next = call float @llvm.fma.f32(float %one.a, float %one.b, float %partial)
  %step.next = add i32 %step, 1
  %more.steps = icmp ult i32 %step.next, 16
  br i1 %more.steps, label %multiply, label %multiplied

multiplied:
  ; nobody may refill the tiles while somebody still reads them
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %k.next = add i32 %k, 16
  %more = icmp ult i32 %k.next, %n
  br i1 %more, label %tiles, label %publish

publish:
  %c.index = add i32 %a.row, %column
  %c.at = getelementptr float, ptr addrspace(1) %c, i32 %c.index
  store float %partial.next, ptr addrspace(1) %c.at
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
