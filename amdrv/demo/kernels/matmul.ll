; c = a * b for square row-major matrices whose size n is a multiple of 32. Workgroups of 32 x 8 make a 32 x 32 tile of
; c, a work-item four elements below each other, from tiles of a (stored by columns) and b that all of them share in LDS.
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()
declare void @llvm.amdgcn.s.barrier()
declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)

@a.tile = internal addrspace(3) global [1024 x float] poison, align 16
@b.tile = internal addrspace(3) global [1024 x float] poison, align 16

define amdgpu_kernel void @matmul(ptr addrspace(1) noalias %c, ptr addrspace(1) noalias readonly %a,
                                  ptr addrspace(1) noalias readonly %b, i32 %n) #0 {
entry:
  %x = call i32 @llvm.amdgcn.workitem.id.x()
  %y = call i32 @llvm.amdgcn.workitem.id.y()
  %tile.x = call i32 @llvm.amdgcn.workgroup.id.x()
  %tile.y = call i32 @llvm.amdgcn.workgroup.id.y()
  %row.in.tile = shl i32 %y, 2
  %tile.row = shl i32 %tile.y, 5
  %tile.column = shl i32 %tile.x, 5
  %row = or disjoint i32 %tile.row, %row.in.tile
  %column = or disjoint i32 %tile.column, %x

  ; where this work-item's four elements of each tile go
  %x.start = shl i32 %x, 5
  %a.slot = or disjoint i32 %x.start, %row.in.tile
  %a.store = getelementptr float, ptr addrspace(3) @a.tile, i32 %a.slot
  %y.start = shl i32 %row.in.tile, 5
  %b.slot = or disjoint i32 %y.start, %x
  %b.store = getelementptr float, ptr addrspace(3) @b.tile, i32 %b.slot
  br label %tiles

tiles:
  %k = phi i32 [ 0, %entry ], [ %k.next, %multiplied ]
  %sum = phi <4 x float> [ zeroinitializer, %entry ], [ %sum.next, %multiplied ]

  %a.row = mul i32 %row, %n
  %a.first = add i32 %a.row, %k
  %a.0 = add i32 %a.first, %x
  %a.1 = add i32 %a.0, %n
  %a.2 = add i32 %a.1, %n
  %a.3 = add i32 %a.2, %n
  %a.0.at = getelementptr float, ptr addrspace(1) %a, i32 %a.0
  %a.1.at = getelementptr float, ptr addrspace(1) %a, i32 %a.1
  %a.2.at = getelementptr float, ptr addrspace(1) %a, i32 %a.2
  %a.3.at = getelementptr float, ptr addrspace(1) %a, i32 %a.3
  %a0 = load float, ptr addrspace(1) %a.0.at
  %a1 = load float, ptr addrspace(1) %a.1.at
  %a2 = load float, ptr addrspace(1) %a.2.at
  %a3 = load float, ptr addrspace(1) %a.3.at
  %a.v0 = insertelement <4 x float> poison, float %a0, i32 0
  %a.v1 = insertelement <4 x float> %a.v0, float %a1, i32 1
  %a.v2 = insertelement <4 x float> %a.v1, float %a2, i32 2
  %a.v3 = insertelement <4 x float> %a.v2, float %a3, i32 3

  %b.line = add i32 %k, %row.in.tile
  %b.row = mul i32 %b.line, %n
  %b.0 = add i32 %b.row, %column
  %b.1 = add i32 %b.0, %n
  %b.2 = add i32 %b.1, %n
  %b.3 = add i32 %b.2, %n
  %b.0.at = getelementptr float, ptr addrspace(1) %b, i32 %b.0
  %b.1.at = getelementptr float, ptr addrspace(1) %b, i32 %b.1
  %b.2.at = getelementptr float, ptr addrspace(1) %b, i32 %b.2
  %b.3.at = getelementptr float, ptr addrspace(1) %b, i32 %b.3
  %b0 = load float, ptr addrspace(1) %b.0.at
  %b1 = load float, ptr addrspace(1) %b.1.at
  %b2 = load float, ptr addrspace(1) %b.2.at
  %b3 = load float, ptr addrspace(1) %b.3.at

  store <4 x float> %a.v3, ptr addrspace(3) %a.store, align 16
  store float %b0, ptr addrspace(3) %b.store
  %b.store.1 = getelementptr float, ptr addrspace(3) %b.store, i32 32
  store float %b1, ptr addrspace(3) %b.store.1
  %b.store.2 = getelementptr float, ptr addrspace(3) %b.store, i32 64
  store float %b2, ptr addrspace(3) %b.store.2
  %b.store.3 = getelementptr float, ptr addrspace(3) %b.store, i32 96
  store float %b3, ptr addrspace(3) %b.store.3
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  br label %multiply

multiply:
  %step = phi i32 [ 0, %tiles ], [ %step.next, %multiply ]
  %partial = phi <4 x float> [ %sum, %tiles ], [ %partial.next, %multiply ]
  %line = shl i32 %step, 5
  %a.place = or disjoint i32 %line, %row.in.tile
  %b.place = or disjoint i32 %line, %x
  %a.load = getelementptr float, ptr addrspace(3) @a.tile, i32 %a.place
  %b.load = getelementptr float, ptr addrspace(3) @b.tile, i32 %b.place
  %four.a = load <4 x float>, ptr addrspace(3) %a.load, align 16
  %one.b = load float, ptr addrspace(3) %b.load
  %b.lane = insertelement <4 x float> poison, float %one.b, i32 0
  %four.b = shufflevector <4 x float> %b.lane, <4 x float> poison, <4 x i32> zeroinitializer
  %partial.next = call <4 x float> @llvm.fma.v4f32(<4 x float> %four.a, <4 x float> %four.b, <4 x float> %partial)
  %step.next = add i32 %step, 1
  %more.steps = icmp ult i32 %step.next, 32
  br i1 %more.steps, label %multiply, label %multiplied

multiplied:
  %sum.next = phi <4 x float> [ %partial.next, %multiply ]
  ; nobody may refill the tiles while somebody still reads them
  fence syncscope("workgroup") release
  call void @llvm.amdgcn.s.barrier()
  fence syncscope("workgroup") acquire
  %k.next = add i32 %k, 32
  %more = icmp ult i32 %k.next, %n
  br i1 %more, label %tiles, label %publish

publish:
  %c.row = mul i32 %row, %n
  %c.0 = add i32 %c.row, %column
  %c.1 = add i32 %c.0, %n
  %c.2 = add i32 %c.1, %n
  %c.3 = add i32 %c.2, %n
  %c.0.at = getelementptr float, ptr addrspace(1) %c, i32 %c.0
  %c.1.at = getelementptr float, ptr addrspace(1) %c, i32 %c.1
  %c.2.at = getelementptr float, ptr addrspace(1) %c, i32 %c.2
  %c.3.at = getelementptr float, ptr addrspace(1) %c, i32 %c.3
  %c0 = extractelement <4 x float> %sum.next, i32 0
  %c1 = extractelement <4 x float> %sum.next, i32 1
  %c2 = extractelement <4 x float> %sum.next, i32 2
  %c3 = extractelement <4 x float> %sum.next, i32 3
  store float %c0, ptr addrspace(1) %c.0.at
  store float %c1, ptr addrspace(1) %c.1.at
  store float %c2, ptr addrspace(1) %c.2.at
  store float %c3, ptr addrspace(1) %c.3.at
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
